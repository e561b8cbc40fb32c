"""Step -> belief: what a step looks like, how hard it is, and what each rung would make of it."""

from governor.estimate.features import Features, features
from governor.estimate.latent import LatentBelief
from governor.estimate.rules import RuleEstimator

__all__ = ["Features", "LatentBelief", "RuleEstimator", "features"]
