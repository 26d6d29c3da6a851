"""The shop's views."""

import json

from asgiref.sync import sync_to_async
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from .models import Order
from .tasks import send_receipt


@csrf_exempt
@require_POST
async def place_order(request: HttpRequest) -> JsonResponse:
    """Store an order, and its receipt's task in the same transaction: `{"email": "ada@example.com"}`."""
    order, uuid = await sync_to_async(_place)(json.loads(request.body)["email"])
    return JsonResponse({"order": order, "receipt": uuid}, status=202)


def _place(email: str) -> tuple[int, str]:
    with transaction.atomic():
        order = Order.objects.create(email=email)
        return order.pk, str(send_receipt.delay(order.pk).task_uuid)


async def ready(request: HttpRequest) -> HttpResponse:
    """Answer a probe: this process takes requests. Neither the database nor the backlog is asked."""
    return HttpResponse("ready")
