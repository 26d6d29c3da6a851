"""The deployment examples, checked as far as it goes without a cloud. Needs what the extra `dev` brings."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from i3tasks.contrib.prometheus.gauges import RowGauges
from i3tasks.emulator import EmulatorProcess
from i3tasks.store.figures import WAITING
from i3tasks.types import I3TasksSettings
from tests.image import DOCKERFILE, Image, steps
from tests.support.doc_commands import problem

hcl2 = pytest.importorskip("hcl2", reason="python-hcl2 comes with the extra dev")
validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate comes with the extra dev")
yaml = pytest.importorskip("yaml", reason="PyYAML comes with the extra dev")

EXAMPLES = Path(__file__).parents[2] / "examples"
TERRAFORM = EXAMPLES / "cloud_run/terraform"
KUBERNETES = ("base", "worker", "web", "autoscaling")
SITE = "https://shop.example.com"


def documents(name: str) -> list[Any]:
    return [each for each in yaml.safe_load_all((EXAMPLES / name).read_text()) if each is not None]


def containers() -> Iterator[dict[str, Any]]:
    """Each container of the YAML files, with its pod's `terminationGracePeriodSeconds`."""
    for name in (
        "gke/base.yaml",
        "gke/worker.yaml",
        "gke/web.yaml",
        "cloud_run/service.yaml",
        "cloud_run/worker-pool.yaml",
    ):
        for document in documents(name):
            pod = document.get("spec", {}).get("template", {}).get("spec", {})
            for container in pod.get("containers", ()):
                yield container | {"grace": pod.get("terminationGracePeriodSeconds"), "file": name}


def commands() -> Iterator[tuple[str, list[str]]]:
    for container in containers():
        words = [*container.get("command", ()), *container.get("args", ())]
        yield container["file"], words
    for name, service in documents("compose/compose.yaml")[0]["services"].items():
        yield f"compose: {name}", service.get("command", [])
    for resource in resources("google_cloud_run_v2_worker_pool").values():
        [container] = resource["template"][0]["containers"]
        yield "terraform", [text(word) for word in (*container["command"], *container["args"])]


def text(value: Any) -> Any:
    """Strings as they are: some versions of the parser keep their quotes."""
    return value.strip('"') if isinstance(value, str) else value


def terraform() -> list[dict[str, Any]]:
    return [hcl2.loads(path.read_text()) for path in sorted(TERRAFORM.glob("*.tf"))]


def resources(kind: str) -> dict[str, Any]:
    found = {}
    for file in terraform():
        for resource in file.get("resource", ()):
            for type_, named in resource.items():
                if text(type_) == kind:
                    found |= {text(name): body for name, body in named.items() if not name.startswith("__")}
    return found


def test_every_command_of_i3tasks_is_one_that_it_takes() -> None:
    lines = [(where, shlex.join(words)) for where, words in commands() if words[:1] == ["i3tasks"]]
    assert len(lines) >= 5
    for where, line in lines:
        assert not problem(line.replace("$(POD_NAME)", "worker-1")), f"{where}: {line}"


@pytest.mark.parametrize("name", KUBERNETES)
def test_the_manifests_are_what_kubernetes_takes(name: str) -> None:
    for document in documents(f"gke/{name}.yaml"):
        validator.validate(document, validator.latest_version(), strict=True)


def test_manifests_refer_to_what_there_is() -> None:
    found = [document for name in KUBERNETES for document in documents(f"gke/{name}.yaml")]
    labels = {
        document["metadata"]["name"]: document["spec"]["template"]["metadata"]["labels"]
        for document in found
        if document["kind"] == "Deployment"
    }
    for document in found:
        spec = document.get("spec", {})
        if document["kind"] == "PodDisruptionBudget":
            assert spec["selector"]["matchLabels"] in labels.values()
        if document["kind"] == "Service":
            assert spec["selector"] in labels.values()
        if document["kind"] == "HorizontalPodAutoscaler":
            assert spec["scaleTargetRef"]["name"] in labels
            names = [metric["external"]["metric"]["name"] for metric in spec["metrics"]]
            rules = documents("gke/prometheus-adapter.yaml")[0]["rules"]["external"]
            assert names[0] in [rule["name"]["as"] for rule in rules]
            [selector] = [metric["external"]["metric"]["selector"] for metric in spec["metrics"][1:]]
            assert selector["matchLabels"]["resource.labels.subscription_id"] in names_of_the_shop()


@pytest.mark.django_db
def test_the_autoscalers_figure_is_one_that_the_worker_gives() -> None:
    [rule] = documents("gke/prometheus-adapter.yaml")[0]["rules"]["external"]
    assert rule["seriesQuery"] in {metric.name for metric in RowGauges().collect()}
    assert f'state="{WAITING}"' in rule["metricsQuery"]


def test_a_worker_has_time_to_drain() -> None:
    drain = I3TasksSettings().drain_seconds
    for container in containers():
        if "run-worker" in container.get("command", ()) and container["file"].startswith("gke"):
            hook = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
            assert container["grace"] > drain + hook
    worker = documents("compose/compose.yaml")[0]["services"]["worker"]
    assert int(worker["stop_grace_period"].removesuffix("s")) > drain
    [pool] = documents("cloud_run/worker-pool.yaml")
    [container] = pool["spec"]["template"]["spec"]["containers"]
    [seconds] = [one["value"] for one in container["env"] if one["name"] == "DRAIN_SECONDS"]
    assert float(seconds) < 10, "Cloud Run kills ten seconds after SIGTERM"


def variables_that_the_shop_reads() -> set[str]:
    tree = ast.parse((EXAMPLES / "shop/shop/settings.py").read_text())
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"[A-Z][A-Z_]+", node.value)
    }


def test_the_environment_has_what_the_shop_reads_and_nothing_else() -> None:
    known = variables_that_the_shop_reads()
    given: dict[str, set[str]] = {}
    for container in containers():
        if "env" in container:
            given.setdefault(container["file"], set()).update(one["name"] for one in container["env"])
    given["compose"] = set(documents("compose/compose.yaml")[0]["x-shop"]["environment"])
    settings = next(file for file in terraform() if "locals" in file and "environment" in str(file["locals"]))
    local = {text(name): value for name, value in settings["locals"][0].items()}
    given["terraform"] = {text(name) for part in ("environment", "secrets") for name in local[part]}
    for where, names in given.items():
        unknown = {name for name in names if not name.startswith("__")} - known - {"POD_NAME"}
        assert not unknown, f"{where} sets what the shop does not read"
    for where in ("cloud_run/service.yaml", "cloud_run/worker-pool.yaml", "terraform"):
        assert given[where] >= {"SECRET_KEY", "DB_HOST", "GOOGLE_CLOUD_PROJECT", "SITE_URL", "PUSH_ACCOUNT"}, where


def shops_settings(**changes: str) -> str:
    """What the shop's settings come to, printed by a process of its own."""
    script = """
from i3tasks.conf import get_config
for queue in get_config().queues.values():
    print(queue.topic, queue.subscription, queue.dead_letter_topic, queue.dead_letter_subscription, queue.push_endpoint)
"""
    environment = {**os.environ, "SECRET_KEY": "x", "DJANGO_SETTINGS_MODULE": "shop.settings", **changes}
    environment.pop("PUBSUB_EMULATOR_HOST", None)
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=EXAMPLES / "shop",
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def names_of_the_shop() -> set[str]:
    printed = shops_settings(GOOGLE_CLOUD_PROJECT="p", SITE_URL=SITE, PUSH_ACCOUNT="push@p.iam.gserviceaccount.com")
    return {name.rpartition("/")[2] for name in printed.split() if name.startswith("projects/")}


def test_terraform_makes_the_topics_and_subscriptions_of_the_settings() -> None:
    [settings] = [file for file in terraform() if "provider" in file]
    local = {text(name): value for name, value in settings["locals"][0].items()}
    made = set()
    for queue, facts in local["queues"].items():
        if queue.startswith("__"):
            continue
        subscription = f"shop.{text(queue)}.{text(facts['subscription'])}"
        made |= {f"shop.{text(queue)}", subscription, f"{subscription}.dead-letter"}
    assert made == names_of_the_shop()
    assert text(local["push_url"]) == "${var.site_url}/i3/tasks-push/"
    assert f"{SITE}/i3/tasks-push/" in shops_settings(SITE_URL=SITE, PUSH_ACCOUNT="push@p.example.com")


def test_terraform_refers_to_what_there_is() -> None:
    source = "\n".join(path.read_text() for path in TERRAFORM.glob("*.tf"))
    source = re.sub(r"#.*", "", source)
    declared = set(re.findall(r'^resource "(\w+)" "(\w+)"', source, re.M))
    assert len(declared) >= 15
    for kind, name in re.findall(r"(?<![\w\".])(google_\w+)\.(\w+)", source):
        assert (kind, name) in declared, f"{kind}.{name}"
    assert set(re.findall(r"\bvar\.(\w+)", source)) == set(re.findall(r'^variable "(\w+)"', source, re.M))
    locals_ = {text(name) for file in terraform() for block in file.get("locals", ()) for name in block}
    assert set(re.findall(r"\blocal\.(\w+)", source)) <= locals_
    if terraform_command := shutil.which("terraform"):
        subprocess.run([terraform_command, "fmt", "-check", "-diff", str(TERRAFORM)], check=True, timeout=60)


def test_compose_refers_to_what_there_is() -> None:
    [compose] = documents("compose/compose.yaml")
    services = compose["services"]
    for service in services.values():
        assert set(service.get("depends_on", ())) <= set(services)
        for volume in service.get("volumes", ()):
            assert volume.split(":")[0] in compose["volumes"]
        if "build" in service:
            assert (EXAMPLES / "compose" / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    environment = compose["x-shop"]["environment"]
    assert environment["DB_HOST"] in services
    assert environment["PUBSUB_HOST"].split(":")[0] in services


def test_the_image_is_made_of_what_there_is() -> None:
    source = (EXAMPLES / "shop/Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+)$", source, re.M):
        for path in line.split()[:-1]:
            assert (EXAMPLES.parent / path).exists(), path
    extras = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    [wanted] = re.findall(r"/i3tasks\[([\w,]+)\]", source)
    assert set(wanted.split(",")) <= set(extras)


def test_the_image_is_sent_what_it_is_made_of_and_little_else() -> None:
    """`python -m tests.image` runs its steps."""
    lines = (EXAMPLES / "shop/Dockerfile.dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (.+)$", (EXAMPLES / "shop/Dockerfile").read_text(), re.M)
    assert lines[1] == "*"
    assert allowed == {path for line in copied for path in line.split()[:-1]}
    assert {name for name, _ in steps(DOCKERFILE.read_text())} <= {
        name.removeprefix("step_").upper() for name in vars(Image) if name.startswith("step_")
    }


def test_the_shop_takes_an_order_and_a_worker_sends_its_receipt(tmp_path: Path) -> None:
    with EmulatorProcess() as pubsub:
        environment = {
            **os.environ,
            "SECRET_KEY": "x",
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PUBSUB_HOST": pubsub.host_port,
            "SQLITE_FILE": str(tmp_path / "shop.sqlite3"),
        }
        environment.pop("PUBSUB_EMULATOR_HOST", None)

        def run(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, *words],
                cwd=EXAMPLES / "shop",
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout

        run("manage.py", "check")
        run("manage.py", "migrate")
        order = """
import django, json
django.setup()
from django.test import Client
answer = Client().post("/orders/", json.dumps({"email": "ada@example.com"}), content_type="application/json")
print(answer.status_code, answer.json()["receipt"])
"""
        status, uuid = run("-c", order).split()
        assert status == "202"
        run("-m", "i3tasks", "run-worker", "--until-empty", "--verbosity", "0")
        shown = run("-m", "i3tasks", "status", uuid, "--json")
    assert "sent to ada@example.com" in shown
