"""Policy files: YAML -> a typed policy, and the terms it grants to each step."""

from __future__ import annotations

from governor.policy.finding import Check, Finding
from governor.policy.load import Inspection, inspect_policy, load_policy, policy_from
from governor.policy.match import (
    Paced,
    has_stops,
    limits_on,
    on_fail_for,
    paced_for,
    rule_for,
    tell_for,
    terms_for,
    tool_rule,
    verify_for,
)
from governor.policy.rewind import OnFail, Rewind, ToolRule
from governor.policy.schema import Policy
from governor.policy.shipped import shipped_names
from governor.policy.spec import specs, verify_check
from governor.policy.watch import PolicyWatcher

__all__ = [
    "Check",
    "Finding",
    "Inspection",
    "OnFail",
    "Paced",
    "Policy",
    "PolicyWatcher",
    "Rewind",
    "ToolRule",
    "has_stops",
    "inspect_policy",
    "limits_on",
    "load_policy",
    "on_fail_for",
    "paced_for",
    "policy_from",
    "rule_for",
    "shipped_names",
    "specs",
    "tell_for",
    "terms_for",
    "tool_rule",
    "verify_check",
    "verify_for",
]
