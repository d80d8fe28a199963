"""Settings of `dlfd submit` itself: what is asked of SLURM, and how a job begins there."""

from __future__ import annotations

from dataclasses import dataclass, field

from .checks import one_of, require

GPU_WAYS = ("none", "gres", "per_task")


@dataclass(frozen=True)
class ClusterConfig:
    """The section `cluster` of the command line (cluster=NAME reads configs/cluster/NAME.yaml); no
    run knows of it."""

    kind: str = "slurm"
    """slurm, or local: the same campaign on this machine, one job after another."""
    ranks: int | None = None
    """Ranks of a run in all; nodes and tasks_per_node follow. null: nodes x tasks_per_node."""
    nodes: int | None = None
    """Nodes of one job."""
    tasks_per_node: int | None = None
    """Ranks of a run on a node, one per GPU where there are GPUs. All three null: the planner packs
    short runs and those that more ranks do not speed up, and spreads the others over a node."""
    max_tasks_per_node: int = 8
    """The most ranks a node takes: its GPUs or, without them, what its cores and memory allow."""
    gpus: str = "none"
    """How GPUs are asked for: none, gres (--gres=gpu:N per node), per_task (--gpus-per-task=1)."""
    gpu_type: str | None = None
    """Model of the GPU where the site tells them apart, as in gpu:a100:4."""
    cpus_per_task: int = 1
    """Cores of one rank."""
    mem_gb: float | None = None
    """Memory of a node in GB; null: the partition's default."""
    time_min: int = 60
    """Time limit of a job. A run that needs longer saves, requeues and goes on."""
    partition: str | None = None
    """As of sbatch; null: that of the cluster."""
    report_partition: str | None = None
    """Partition of the job without GPUs that writes the report, where the site keeps others for
    GPUs; null: that of the runs."""
    account: str | None = None
    """As of sbatch; null: your own."""
    qos: str | None = None
    """As of sbatch."""
    constraint: str | None = None
    """Features that nodes must have, as of sbatch."""
    options: list[str] = field(default_factory=list)
    """Further sbatch options, such as --exclusive or --mail-type=END."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that run before srun, such as module load cuda."""
    srun_args: list[str] = field(default_factory=list)
    """Further options of srun."""
    prefix: list[str] = field(default_factory=list)
    """Words between srun and python, such as apptainer exec --nv IMAGE.sif."""
    python: str | None = None
    """The interpreter on the nodes; null: the interpreter that submits."""
    signal_s: int = 120
    """Seconds before the time limit at which the ranks are told to save."""
    max_restarts: int = 20
    """How often a job that saved and asked to go on is requeued."""
    max_running: int | None = None
    """Tasks of the campaign that may run at once; null: no limit."""
    max_array: int = 1000
    """Tasks in one array; a longer one is cut (MaxArraySize of the site, less one)."""
    pack: str = "auto"
    """Runs of an allocation, each on one rank: a number; 1: none are packed; auto: short runs, and
    runs that more ranks do not speed up, are packed unless ranks, nodes or tasks_per_node is
    given."""
    pack_min: float = 20.0
    """Minutes below which a run on one rank is short, and that a pack of short runs may take."""
    images_per_s: float = 100.0
    """Forward passes of ResNet18 at 128 px that one rank does in a second, for the estimate."""
    snapshot: bool = False
    """Copy the code into the campaign and run that copy."""
    local_paths: list[str] = field(
        default_factory=lambda: [
            "/tmp", "/var/tmp", "/dev/shm",  # noqa: S108 - names to warn of: nothing is written there
            "/scratch/local", "/local",
        ]
    )  # fmt: skip
    """Where this site keeps node-local disks: a campaign there is warned of."""

    def __post_init__(self) -> None:
        one_of("cluster.kind", self.kind, ("slurm", "local"))
        one_of("cluster.gpus", self.gpus, GPU_WAYS)
        for name in ("max_tasks_per_node", "cpus_per_task", "time_min", "max_array"):
            require(getattr(self, name) >= 1, f"cluster.{name}", getattr(self, name), ">= 1")
        for name in ("ranks", "nodes", "tasks_per_node", "max_running"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"cluster.{name}", value, ">= 1, or null")
        require(
            self.mem_gb is None or self.mem_gb > 0,
            "cluster.mem_gb",
            self.mem_gb,
            "above 0, or null",
        )
        for name in ("signal_s", "max_restarts"):
            require(getattr(self, name) >= 0, f"cluster.{name}", getattr(self, name), ">= 0")
        for name in ("pack_min", "images_per_s"):
            require(getattr(self, name) > 0, f"cluster.{name}", getattr(self, name), "above 0")
        is_number = self.pack.isdecimal() and int(self.pack) >= 1
        require(self.pack == "auto" or is_number, "cluster.pack", self.pack, "auto, or >= 1")
