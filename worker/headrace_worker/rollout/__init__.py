"""Move traffic from one version to another: promotion, canary, shadow, rollback."""
