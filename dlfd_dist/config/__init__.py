"""Frozen dataclasses, one per section of the configuration, and JobConfig that holds them all."""

from .cluster import ClusterConfig
from .compare import CompareConfig
from .job import JobConfig, read_by, signature, to_dict
from .methods import (
    METHOD_CONFIGS,
    BadTeacherConfig,
    DLFDConfig,
    L1SparseConfig,
    LastBlocksConfig,
    MethodConfig,
    NegGradPlusConfig,
    SalUnConfig,
    SCRUBConfig,
    SSDConfig,
    UNSIRConfig,
)
from .search import SEARCH_SPACES, draw_settings
from .sections import (
    DataConfig,
    ForgetConfig,
    MetricsConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    SynthesisConfig,
    SyntheticFacesConfig,
    TrainConfig,
    TransportConfig,
)

__all__ = [
    "BadTeacherConfig",
    "ClusterConfig",
    "CompareConfig",
    "DLFDConfig",
    "DataConfig",
    "ForgetConfig",
    "JobConfig",
    "L1SparseConfig",
    "LastBlocksConfig",
    "METHOD_CONFIGS",
    "MethodConfig",
    "MetricsConfig",
    "ModelConfig",
    "NegGradPlusConfig",
    "RunConfig",
    "RuntimeConfig",
    "SCRUBConfig",
    "SEARCH_SPACES",
    "SSDConfig",
    "SalUnConfig",
    "SynthesisConfig",
    "SyntheticFacesConfig",
    "TrainConfig",
    "TransportConfig",
    "UNSIRConfig",
    "draw_settings",
    "read_by",
    "signature",
    "to_dict",
]
