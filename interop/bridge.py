"""Our library as Python calls, and both libraries behind one set of names.

`Bridge` runs `zae-limiter-bridge calls` and talks to it in JSON lines. `Ours` and `Theirs` are one client each, of
this library and of the original, with the same methods; tests drive either without knowing which it is.
"""

import itertools
import json
import random
import subprocess
import threading
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from types import SimpleNamespace

import zae_limiter.exceptions
import zae_limiter.sync_limiter
import zae_limiter.sync_repository
from zae_limiter.exceptions import ResourceDisabled, ValidationError
from zae_limiter import Limit as TheirLimit
from zae_limiter import (
    RateLimiterUnavailable,
    RateLimitExceeded,
    ScheduleEntry,
    SyncRateLimiter,
    SyncRepository,
)


class Refused(Exception):
    """A limit refused the request. `retry_after` is in seconds, None for never. `body` is the body of a 429, and `statuses` are its limits."""

    def __init__(self, retry_after, body):
        super().__init__(f"refused, retry after {retry_after}")
        self.retry_after = retry_after
        self.body = body
        self.statuses = list(body["limits"])


class Failed(Exception):
    """The library says no for another reason; `kind` is our error's name or the original's class."""

    def __init__(self, kind, message, detail=None):
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.detail = detail or {}


class Bridge:
    """A process that answers calls of our library. Safe to use from many threads."""

    def __init__(self, program):
        self.process = subprocess.Popen(
            [program, "calls"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ids = itertools.count()
        self.waiting = {}
        self.lock = threading.Lock()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            answer = json.loads(line)
            with self.lock:
                future = self.waiting.pop(answer["id"])
            future.set_result(answer)
        with self.lock:
            for future in self.waiting.values():
                future.set_exception(RuntimeError("the bridge ended"))

    def start(self, call, **arguments):
        """Sends a call; returns a future of its answer."""
        number = next(self.ids)
        future = Future()
        with self.lock:
            self.waiting[number] = future
            self.process.stdin.write(json.dumps({"id": number, "call": call, **arguments}) + "\n")
            self.process.stdin.flush()
        return future

    def call(self, call, **arguments):
        answer = self.start(call, **arguments).result(timeout=120)
        if "ok" in answer:
            return answer["ok"]
        error = answer["error"]
        if error["kind"] == "RateLimitExceeded":
            raise Refused(error["body"]["retry_after_seconds"], error["body"])
        raise Failed(error["kind"], error["message"], error)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)


class OurLease:
    def __init__(self, client, number):
        self.client, self.number = client, number

    def adjust(self, **amounts):
        self.client.bridge.call("adjust", lease=self.number, amounts=amounts)

    def release(self, **amounts):
        self.client.bridge.call("release", lease=self.number, amounts=amounts)

    def commit(self):
        self.client.bridge.call("commit", lease=self.number)

    def rollback(self):
        self.client.bridge.call("rollback", lease=self.number)


class Ours:
    """A client of our library."""

    name = "ours"

    def __init__(self, bridge, endpoint, stack, namespace="default", now_ms=None, **options):
        self.bridge = bridge
        if now_ms is not None:
            options["now_ms"] = now_ms
        opened = bridge.call("open", endpoint=endpoint, stack=stack, namespace=namespace, **options)
        self.number, self.namespace_id = opened["client"], opened["namespace_id"]

    def call(self, call, **arguments):
        return self.bridge.call(call, client=self.number, **arguments)

    def set_clock(self, now_ms):
        self.call("set_clock", now_ms=now_ms)

    def set_draw(self, number):
        """Which of the shards that it may choose from it takes, modulo how many those are; of a client opened with `draws`."""
        self.call("set_draw", draw=number)

    def acquire(self, entity, resource, **consume):
        answer = self.call("acquire", entity=entity, resource=resource, consume=consume)
        return OurLease(self, answer["lease"])

    def available(self, entity, resource):
        return self.call("available", entity=entity, resource=resource)

    def check(self, entity, resource, **needed):
        """The statuses of all limits, as in the body of a 429."""
        return self.call("check", entity=entity, resource=resource, consume=needed)

    def create_entity(self, entity, **facts):
        self.call("create_entity", entity=entity, **facts)

    def entity(self, entity):
        found = self.call("entity", entity=entity)
        return found and {key: found[key] for key in ("id", "name", "parent", "cascade", "metadata")}

    def children(self, entity):
        return sorted(self.call("children", entity=entity))

    def delete_entity(self, entity):
        self.call("delete_entity", entity=entity)

    def set_entity_limits(self, entity, resource, limits):
        self.call("set_entity_limits", entity=entity, resource=resource, limits=limits)

    def entity_limits(self, entity, resource):
        return sorted(map(tuple, self.call("entity_limits", entity=entity, resource=resource)))

    def delete_entity_limits(self, entity, resource):
        self.call("delete_entity_limits", entity=entity, resource=resource)

    def set_resource_defaults(self, resource, limits):
        self.call("set_resource_defaults", resource=resource, limits=limits)

    def resource_defaults(self, resource):
        return sorted(map(tuple, self.call("resource_defaults", resource=resource)))

    def delete_resource_defaults(self, resource):
        self.call("delete_resource_defaults", resource=resource)

    def set_system_defaults(self, limits, on_unavailable=None):
        self.call("set_system_defaults", limits=limits, on_unavailable=on_unavailable)

    def system_defaults(self):
        found = self.call("system_defaults")
        return sorted(map(tuple, found["limits"])), found["on_unavailable"]

    def delete_system_defaults(self):
        self.call("delete_system_defaults")

    def set_access(self, entity, resource, access):
        """`disable`, `enable`, `bypass`, or None, of an entity's level or, without one, of the resource."""
        return self.call("set_access", entity=entity, resource=resource, access=access)

    def set_cascade(self, entity, resource, cascade):
        return self.call("set_cascade", entity=entity, resource=resource, cascade=cascade)

    def set_parent(self, entity, parent):
        return self.call("set_parent", entity=entity, parent=parent)

    def reset_bucket(self, entity, resource, limits, key):
        """The shards, and the tokens by limit."""
        return self.call("reset_bucket", entity=entity, resource=resource, limits=limits, key=key)

    def top_up(self, entity, resource, amounts, key):
        return self.call("top_up", entity=entity, resource=resource, amounts=amounts, key=key)

    def listings(self, resource):
        return (
            self.call("resources_with_defaults"),
            sorted(self.call("resources_with_entity_limits")),
            self.call("entities_with_limits", resource=resource),
        )

    def audit(self, subject):
        return [tuple(event) for event in self.call("audit_events", subject=subject)]

    def namespaces(self):
        return sorted(map(tuple, self.call("namespaces")))

    def orphans(self):
        return sorted(map(tuple, self.call("orphans")))

    def register_namespace(self, name):
        return self.call("register_namespace", namespace=name)

    def delete_namespace(self, name):
        self.call("delete_namespace", namespace=name)

    def recover_namespace(self, number):
        return self.call("recover_namespace", namespace_id=number)

    def purge_namespace(self, number):
        self.call("purge_namespace", namespace_id=number)

    def forget(self):
        """Forgets everything cached."""
        self.call("invalidate")

    def settle(self):
        """Waits for what runs in the background."""
        self.call("drain")

    def close(self):
        self.settle()


class TheirLease:
    """A lease of the original outside a `with` block, so that tests can interleave clients."""

    def __init__(self, context):
        self.context = context
        self.lease = context.__enter__()

    def adjust(self, **amounts):
        self.lease.adjust(**amounts)

    def release(self, **amounts):
        self.lease.release(**amounts)

    def commit(self):
        self.context.__exit__(None, None, None)

    def rollback(self):
        try:
            raise KeyError("rolled back by the test")
        except KeyError as err:
            self.context.__exit__(type(err), err, err.__traceback__)


def theirs_from(limit):
    return (limit.name, limit.capacity, limit.refill_amount, limit.refill_period_seconds)


def their_limit(limit):
    """The original's limit of one as the bridge takes them: four values, or a mapping if it has a shape."""
    if not isinstance(limit, dict):
        name, capacity, amount, seconds = limit
        return TheirLimit(name=name, capacity=capacity, refill_amount=amount, refill_period_seconds=seconds)
    soft = limit.get("soft", False)
    if "reset_after_seconds" in limit:
        length = timedelta(seconds=limit["reset_after_seconds"])
        made = TheirLimit.quota(limit["name"], limit["capacity"], reset_after=length, soft=soft)
    elif "reset_schedule" in limit:
        entries = tuple(ScheduleEntry.reset(entry["cron"], entry["tz"]) for entry in limit["reset_schedule"])
        made = TheirLimit.quota(limit["name"], limit["capacity"], cron=entries[0].cron, tz=entries[0].tz, soft=soft)
        made = made.with_reset_schedule(entries)
    else:
        made = TheirLimit(
            name=limit["name"],
            capacity=limit["capacity"],
            refill_amount=limit["refill_amount"],
            refill_period_seconds=limit["refill_period"],
            soft=soft,
        )
    return made.with_schedule(tuple(ScheduleEntry(**entry) for entry in limit.get("schedule", ())))


def theirs_of(limits):
    return [their_limit(limit) for limit in limits]


class Drawn:
    """Stands for the module `random`, with a choice that is known."""

    uniform = staticmethod(random.uniform)

    def __init__(self, number):
        self.number = number

    def choice(self, among):
        return among[self.number % len(among)]

    def randrange(self, start, stop=None):
        start, stop = (0, start) if stop is None else (start, stop)
        return start + self.number % (stop - start)


class Theirs:
    """A client of the original."""

    name = "theirs"

    def __init__(self, endpoint, stack, namespace="default", now_ms=None, **options):
        self.repo = SyncRepository.open(
            namespace, stack=stack, region="us-east-1", endpoint_url=endpoint, **options
        )
        self.limiter = SyncRateLimiter(repository=self.repo)
        self.namespace_id = self.repo.namespace_id
        if now_ms is not None:
            self.set_clock(now_ms)

    def set_clock(self, now_ms):
        self.repo._now_ms = lambda: now_ms

    def set_draw(self, number):
        """Which of the shards that it may choose from it takes, modulo how many those are; of all clients of the original."""
        drawn = Drawn(number)
        for module in (zae_limiter.sync_limiter, zae_limiter.sync_repository):
            module.random = drawn

    def _body(self, make):
        """A refusal's body, whose instants the original computes from the machine's clock."""
        original = zae_limiter.exceptions.time
        now = Fraction(self.repo._now_ms(), 1000)
        zae_limiter.exceptions.time = SimpleNamespace(time=lambda: now)
        try:
            return make()
        finally:
            zae_limiter.exceptions.time = original

    def _do(self, call, *arguments, **options):
        try:
            return call(*arguments, **options)
        except RateLimitExceeded as err:
            raise Refused(err.retry_after_seconds, self._body(err.as_dict)) from err
        except RateLimiterUnavailable as err:
            raise Failed("Unavailable", str(err)) from err
        except ResourceDisabled as err:
            raise Failed("Disabled", str(err)) from err
        except ValidationError as err:
            raise Failed("InvalidInput", str(err)) from err

    def acquire(self, entity, resource, **consume):
        context = self.limiter.acquire(entity_id=entity, resource=resource, consume=consume)
        return self._do(TheirLease, context)

    def available(self, entity, resource):
        return self.limiter.available(entity, resource)

    def check(self, entity, resource, **needed):
        """The statuses of all limits, as in the body of a 429."""
        statuses = self.limiter.check_availability(entity, resource, needed=needed or None).statuses
        # The body of a refusal is made from any statuses of which one is exceeded.
        shown = RateLimitExceeded(
            [replace(status, exceeded=True, retry_after_seconds=max(status.retry_after_seconds, 0)) for status in statuses]
        )
        limits = self._body(shown.as_dict)["limits"]
        return [{**limit, "exceeded": status.exceeded} for limit, status in zip(limits, statuses, strict=True)]

    def create_entity(self, entity, name=None, parent=None, cascade=False, metadata=None):
        self.repo.create_entity(entity, name=name, parent_id=parent, cascade=cascade, metadata=metadata)

    def entity(self, entity):
        found = self.repo.get_entity(entity)
        return found and {
            "id": found.id,
            "name": found.name,
            "parent": found.parent_id,
            "cascade": found.cascade,
            "metadata": found.metadata,
        }

    def children(self, entity):
        return sorted(child.id for child in self.repo.get_children(entity))

    def delete_entity(self, entity):
        self.repo.delete_entity(entity)

    def set_entity_limits(self, entity, resource, limits):
        self.limiter.set_limits(entity, theirs_of(limits), resource=resource)

    def entity_limits(self, entity, resource):
        return sorted(map(theirs_from, self.repo.get_limits(entity, resource)))

    def delete_entity_limits(self, entity, resource):
        self.limiter.delete_limits(entity, resource=resource)

    def set_resource_defaults(self, resource, limits):
        self.repo.set_resource_defaults(resource, theirs_of(limits))

    def resource_defaults(self, resource):
        return sorted(map(theirs_from, self.repo.get_resource_defaults(resource)))

    def delete_resource_defaults(self, resource):
        self.repo.delete_resource_defaults(resource)

    def set_system_defaults(self, limits, on_unavailable=None):
        self.repo.set_system_defaults(theirs_of(limits), on_unavailable=on_unavailable)

    def system_defaults(self):
        limits, policy = self.repo.get_system_defaults()
        return sorted(map(theirs_from, limits)), policy

    def delete_system_defaults(self):
        self.repo.delete_system_defaults()

    def set_access(self, entity, resource, access):
        """`disable`, `enable`, `bypass`, or None, of an entity's level or, without one, of the resource."""
        scope = "resource" if entity is None else "entity"
        name = f"clear_{scope}_disabled" if access is None else f"{access}_{scope}"
        of = [resource] if entity is None else [entity, None if resource == "_default_" else resource]
        return self._do(getattr(self.repo, name), *of)

    def set_cascade(self, entity, resource, cascade):
        scope, of = ("resource", [resource]) if entity is None else ("entity", [entity])
        more = {} if entity is None or resource == "_default_" else {"resource": resource}
        if cascade is None:
            return self._do(getattr(self.repo, f"clear_{scope}_cascade"), *of, **more)
        return self._do(getattr(self.repo, f"set_{scope}_cascade"), *of, cascade, **more)

    def set_parent(self, entity, parent):
        return self._do(self.repo.set_parent, entity, parent)

    def reset_bucket(self, entity, resource, limits, key):
        """The shards, and the tokens by limit."""
        done = self._do(self.repo.reset_bucket, entity, resource, limits=limits or None, idempotency_key=key)
        return [done.shards, done.amounts]

    def top_up(self, entity, resource, amounts, key):
        done = self._do(self.repo.top_up, entity, resource, amounts, idempotency_key=key)
        return [done.shards, done.amounts]

    def listings(self, resource):
        return (
            self.repo.list_resources_with_defaults(),
            self.repo.list_resources_with_entity_configs(),
            self.repo.list_entities_with_custom_limits(resource)[0],
        )

    def audit(self, subject):
        events = self.repo.get_audit_events(subject)
        return [(event.action, event.principal, event.resource) for event in events]

    def namespaces(self):
        return sorted((one["name"], one["namespace_id"]) for one in self.repo.list_namespaces())

    def orphans(self):
        return sorted((one["namespace"], one["namespace_id"]) for one in self.repo.list_orphan_namespaces())

    def register_namespace(self, name):
        return self.repo.register_namespace(name)

    def delete_namespace(self, name):
        self.repo.delete_namespace(name)

    def recover_namespace(self, number):
        return self.repo.recover_namespace(number)

    def purge_namespace(self, number):
        self.repo.purge_namespace(number)

    def forget(self):
        self.repo.invalidate_config_cache()

    def settle(self):
        pass

    def close(self):
        self.repo.close()
