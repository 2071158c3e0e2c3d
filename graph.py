"""The graph: `serve run serve_config.yaml` calls build(), which finds the analyzers and binds them to decoder and ingress."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import ray
from pydantic import Field, ValidationError
from ray import serve
from ray.serve import Application, Deployment

from deployments.analyzer import Analyzer, Settings, discover
from deployments.cuda_libraries import library_path
from deployments.decoder import Decoder
from deployments.ingress import Ingress
from deployments.media import Model
from deployments.memory_plan import Plan, Planned, chosen_precisions, plan, smallest_card_mib
from deployments.pipeline import upstream_first_order
from deployments.replica import AnalyzerReplica
from deployments.stages import DECODER, INGRESS, STAGES, Share, autoscaling, replicas

log = logging.getLogger("clipgraph.graph")


# The ingress makes a hundred calls a clip and computes nothing: without hops between three threads' event loops each takes an
# eighth less of its time (docs.ray.io, Serve performance tuning: RAY_SERVE_THROUGHPUT_OPTIMIZED).
ONE_LOOP = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0", "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0"}


class GraphArgs(Model):
    """`args` of serve_config.yaml. Few on purpose: any change of them restarts every deployment."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    analyzers: tuple[str, ...] | None = Field(
        None, description="names to deploy; all files of deployments/analyzers when left out"
    )
    settings: dict[str, dict[str, Any]] = Field(
        {}, description="per analyzer, what its settings_type names: models, precision, lists"
    )
    card_gib: float | None = Field(
        None, description="memory of the smallest GPU; asked of this machine's driver when left out"
    )
    media_roots: tuple[str, ...] = Field(
        (), description="folders whose files video_path may name; CLIPGRAPH_MEDIA_ROOTS when empty"
    )


def build(args: GraphArgs) -> Application:
    """Bind the whole graph. Raises ValueError with a sentence when what is asked for cannot run on this cluster."""
    analyzers = discover()
    names = upstream_first_order(analyzers, list(args.analyzers) if args.analyzers is not None else list(analyzers))
    settings = checked_settings(analyzers, args.settings)
    device = choose_device(args.device)
    planned = plan_card(args, names, settings) if device == "cuda" else None

    def place_of(name: str, share: Share) -> tuple[str, Planned | None]:
        place = planned.get(name) if planned else None
        on = device if share.num_gpus and (place is None or place.on_gpu) else "cpu"
        return on, place if on == "cuda" else None

    on, place = place_of("decoder", DECODER)
    decoder = scaled(deployment(Decoder, "decoder", DECODER, on), on, place).bind(on)
    handles = {}
    for name in names:
        share = STAGES[analyzers[name].stage]
        on, place = place_of(name, share)
        replica = scaled(deployment(AnalyzerReplica, name, share, on), on, place)
        handles[name] = replica.bind(name, on, share.threads, settings[name], place)
    return deployment(serve.ingress()(Ingress), "ingress", INGRESS, "cpu").bind(decoder, handles, media_roots(args))


def checked_settings(
    analyzers: Mapping[str, type[Analyzer[Any]]], given: Mapping[str, Mapping[str, Any]]
) -> dict[str, Settings]:
    """Each analyzer's settings. Raises ValueError for a name or a key that does not exist, or an impossible value."""
    unknown = set(given) - set(analyzers)
    if unknown:
        raise ValueError(
            f"args.settings names {sorted(unknown)}, which are no analyzers; there are {sorted(analyzers)}"
        )
    settings = {}
    for name, cls in analyzers.items():
        try:
            settings[name] = cls.settings_type(**given.get(name, {}))
        except ValidationError as error:
            raise ValueError(f"args.settings.{name}: {error}") from error
    return settings


def deployment(cls: type, name: str, share: Share, device: str) -> Deployment:
    """The class as a deployment. No num_gpus at all on the CPU, so that one file serves machines with and without."""
    actor: dict[str, Any] = {"num_cpus": share.num_cpus}
    if device == "cuda":
        actor |= {"num_gpus": share.num_gpus, "runtime_env": {"env_vars": library_path()}}
    if name == "ingress":
        actor |= {"runtime_env": {"env_vars": ONE_LOOP}}
    made: Deployment = serve.deployment(name=name, ray_actor_options=actor)(cls)
    return made


def scaled(made: Deployment, device: str, place: Planned | None) -> Deployment:
    """With replicas by the cluster's cores and cards. A row's autoscaling_config in serve_config.yaml replaces this."""
    cores, cards, memory_gib = cluster("CPU"), cluster("GPU"), cluster("memory") / 2**30
    config = autoscaling(made.name, device == "cuda", cores, cards, memory_gib, place.replicas if place else None)
    return made.options(autoscaling_config=config)


def cluster(resource: str) -> float:
    """How much of CPU, GPU or memory (bytes) the Ray cluster has; 0 when there is no cluster yet."""
    return float(ray.cluster_resources().get(resource, 0.0)) if ray.is_initialized() else 0.0  # type: ignore[no-untyped-call]


def plan_card(args: GraphArgs, names: Sequence[str], settings: Mapping[str, Settings]) -> Plan | None:
    """The memory plan for the smallest card; None, with a line in the log, where no size is known. Raises DoesNotFit."""
    card_mib = args.card_gib * 1024 if args.card_gib else smallest_card_mib()
    if card_mib is None:
        log.warning("no GPU driver on this node: name args.card_gib, so that memory can be planned")
        return None
    wanted = {name: replicas(name, cluster("CPU")) for name in ("decoder", *names)}
    found = plan(card_mib, wanted, precisions=chosen_precisions(settings), replicas=wanted)
    for row in found.rows:
        log.info(
            "planned",
            extra={
                "analyzer": row.analyzer,
                "precision": row.precision,
                "batch": row.batch,
                "replicas": row.replicas,
                "mib": row.mib,
            },
        )
    return found


def choose_device(wanted: str) -> str:
    """cuda or cpu. `auto` takes the GPU when the cluster has one."""
    gpus = cluster("GPU")
    if wanted == "cuda" and not gpus:
        raise ValueError(
            "args.device is cuda, but this Ray cluster has no GPU. Use device: auto or cpu, or add a GPU node."
        )
    return "cuda" if gpus and wanted != "cpu" else "cpu"


def media_roots(args: GraphArgs) -> tuple[str, ...]:
    """The folders that video_path may name files in: args, else CLIPGRAPH_MEDIA_ROOTS, else where the service was started."""
    from_environment = tuple(root for root in os.environ.get("CLIPGRAPH_MEDIA_ROOTS", "").split(os.pathsep) if root)
    return tuple(os.path.abspath(root) for root in args.media_roots or from_environment or (os.getcwd(),))
