"""From a job to a plan: every name resolved, and the impossible refused."""

from fedmpi.plan.assemble import assemble, resolved_table
from fedmpi.plan.plan import Plan

__all__ = ["Plan", "assemble", "resolved_table"]
