"""The views of the web process. They start a census, and serve the library's files to the tasks."""

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotFound, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from census import library
from census.models import Census, SourceFile
from census.tasks import collect


@csrf_exempt
@require_POST
async def start(request: HttpRequest) -> JsonResponse:
    """Enqueue one task per file, or for the first `limit` files. Answers at once; the work is done in a worker."""
    limit = request.POST.get("limit", "")
    census, files = await sync_to_async(begin)(int(limit) if limit.isdigit() else None)
    return JsonResponse({"census": census, "files": files}, status=202)


@transaction.atomic
def begin(limit: int | None = None) -> tuple[int, int]:
    """Create a census: all of its rows and tasks, or none of them."""
    paths = library.paths()[:limit]
    census = Census.objects.create(library=str(library.folder()))
    SourceFile.objects.bulk_create(SourceFile(census=census, path=path) for path in paths)
    collect.delay_many([(census.pk, path) for path in paths])
    return census.pk, len(paths)


@require_GET
async def source(request: HttpRequest) -> HttpResponse:
    """Serve the text of one file of the library."""
    try:
        text = await sync_to_async(library.read, thread_sensitive=False)(request.GET.get("path", ""))
    except FileNotFoundError:
        return HttpResponseNotFound("no such file in the library")
    return HttpResponse(text, content_type="text/plain; charset=utf-8")
