"""The tables of the newest schema. Instants are UTC text, ISO 8601 with microseconds.

Migrations do not import this: they hold the schema as it was when they were written. A test
compares the two.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

PLANS = Table(
    "plans",
    METADATA,
    Column("plan_id", String(80), primary_key=True),
    Column("deployment", String(63), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("plan", Text, nullable=False),
    Column("diff", Text, nullable=False),
    Column("findings", Text, nullable=False),
    Index("ix_plans_deployment", "deployment", "created_at"),
)

APPROVALS = Table(
    "approvals",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("plan_id", String(80), ForeignKey("plans.plan_id"), nullable=False),
    Column("state", String(20), nullable=False),
    Column("fleet_version", String(200), nullable=False),
    Column("changed_at", String(40), nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_by", String(200), nullable=False, server_default=""),
    Column("approvers", Text, nullable=False, server_default="[]"),
    Column("needed", Integer, nullable=False, server_default="1"),
    Index("ix_approvals_plan_id", "plan_id", "seq"),
)

STEPS = Table(
    "steps",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("plan_id", String(80), ForeignKey("plans.plan_id"), nullable=False),
    Column("run", Integer, ForeignKey("approvals.seq"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("begun_at", String(40), nullable=False),
    Column("what", Text, nullable=False),
    Index("ix_steps_plan_id", "plan_id", "seq"),
)

OBSERVATIONS = Table(
    "observations",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("model", String(200), nullable=False),
    Column("request_class", String(200), nullable=False),
    Column("start_at", String(40), nullable=False),
    Column("window_s", Float, nullable=False),
    Column("received_at", String(40), nullable=False),
    Column("window", Text, nullable=False),
    Column("rolled_up", Integer, nullable=False, server_default="0"),
    UniqueConstraint(
        "deployment", "model", "request_class", "start_at", name="uq_observations_window"
    ),
    Index(
        "ix_observations_rolled_up",
        "deployment",
        "model",
        "request_class",
        "rolled_up",
        "start_at",
    ),
)

FLEETS = Table(
    "fleets",
    METADATA,
    Column("deployment", String(63), primary_key=True),
    Column("received_at", String(40), nullable=False),
    Column("fleet", Text, nullable=False),
)

DECISIONS = Table(
    "decisions",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("decided_at", String(40), nullable=False),
    Column("plan_id", String(80), nullable=True),
    Column("outcome", String(40), nullable=False),
    Column("reason", Text, nullable=False),
    Column("wanted", Text, nullable=True),
    Index("ix_decisions_deployment", "deployment", "seq"),
)

KNOWN_POOLS = Table(
    "known_pools",
    METADATA,
    Column("deployment", String(63), primary_key=True),
    Column("pool", String(200), primary_key=True),
    Column("replicas", Integer, nullable=False),
    Column("late", Integer, nullable=False),
    Column("edited_at", String(40), nullable=True),
    Column("edited_from", Integer, nullable=True),
    Column("broken_template", String(64), nullable=True),
    Column("broken_times", Integer, nullable=False, server_default="0"),
    Column("broken_at", String(40), nullable=True),
    Column("broken_why", Text, nullable=True),
)

INSTANCES = Table(
    "instances",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("name", String(40), nullable=False),
)

STOCK_OUTS = Table(
    "stock_outs",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("accelerator", String(200), nullable=False),
    Column("usable", Integer, nullable=False),
    Column("until_at", String(40), nullable=False),
    Index("ix_stock_outs_deployment", "deployment", "until_at"),
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", String(40), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("action", String(80), nullable=False),
    Column("subject", String(200), nullable=False),
    Column("detail", Text, nullable=False),
    Column("prev_hash", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Index("ix_audit_prev_hash", "prev_hash", unique=True),
    Index("ix_audit_hash", "hash", unique=True),
)

AUDIT_HEAD = Table(
    "audit_head",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", Integer, nullable=False),
    Column("hash", String(64), nullable=False),
)

TOKENS = Table(
    "tokens",
    METADATA,
    Column("token_hash", String(64), primary_key=True),
    Column("name", String(200), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("role", String(20), nullable=False),
    Column("expires_at", String(40), nullable=True),
    Column("last_used_at", String(40), nullable=True),
    Column("revoked_at", String(40), nullable=True),
    Index("ix_tokens_name", "name"),
)

FORECASTS = Table(
    "forecasts",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("model", String(200), nullable=False),
    Column("made_at", String(40), nullable=False),
    Column("window_s", Float, nullable=False),
    Column("windows", Integer, nullable=False),
    Column("forecast", Text, nullable=False),
    UniqueConstraint("deployment", "model", "made_at", name="uq_forecasts_made_at"),
)

FORECAST_OUTCOMES = Table(
    "forecast_outcomes",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("model", String(200), nullable=False),
    Column("made_at", String(40), nullable=False),
    Column("windows_ahead", Integer, nullable=False),
    Column("request_class", String(200), nullable=False),
    Column("start_at", String(40), nullable=False),
    Column("window_s", Float, nullable=False),
    Column("request_rate_rps", Float, nullable=False),
    Column("request_rate_median_rps", Float, nullable=False),
    Column("request_rate_q90_rps", Float, nullable=False),
    Column("input_tokens_per_s", Float, nullable=False),
    Column("input_tokens_median_per_s", Float, nullable=False),
    Column("input_tokens_q90_per_s", Float, nullable=False),
    Column("output_tokens_per_s", Float, nullable=False),
    Column("output_tokens_median_per_s", Float, nullable=False),
    Column("output_tokens_q90_per_s", Float, nullable=False),
    UniqueConstraint(
        "deployment",
        "model",
        "made_at",
        "windows_ahead",
        "request_class",
        name="uq_forecast_outcomes_window",
    ),
)

GATE_REQUESTS = Table(
    "gate_requests",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("started_at", String(40), nullable=False),
    Column("model", String(200), nullable=False),
    Column("request_class", String(200), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("client", String(100), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("decision", String(20), nullable=False),
    Column("reason", String(40), nullable=False),
    Column("cell", String(200), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("status", Integer, nullable=False),
    Column("input_tokens", Integer, nullable=False),
    Column("cached_tokens", Integer, nullable=True),
    Column("output_tokens", Integer, nullable=False),
    Column("tokens_counted", Boolean, nullable=False),
    Column("ttft_s", Float, nullable=True),
    Column("tpot_s", Float, nullable=True),
    Column("itl_p99_s", Float, nullable=True),
    Column("e2e_s", Float, nullable=False),
    Column("predicted_ttft_s", Float, nullable=True),
    Column("predicted_tpot_s", Float, nullable=True),
    Column("met", Boolean, nullable=True),
    Column("cost_usd", Float, nullable=True),
    Index("ix_gate_requests_deployment", "deployment", "started_at"),
)

GATE_HOURS = Table(
    "gate_hours",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("hour_at", String(40), nullable=False),
    Column("model", String(200), nullable=False),
    Column("request_class", String(200), nullable=False),
    Column("client", String(100), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("judged", BigInteger, nullable=False),
    Column("met", BigInteger, nullable=False),
    Column("cost_usd", Float, nullable=False),
    UniqueConstraint(
        "deployment",
        "hour_at",
        "model",
        "request_class",
        "client",
        "outcome",
        name="uq_gate_hours_hour",
    ),
)

LEASES = Table(
    "leases",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("holder", String(200), nullable=False),
    Column("term", Integer, nullable=False),
    Column("duration_s", Float, nullable=False),
    Column("renewed_at", String(40), nullable=False),
    Column("version", BigInteger, nullable=False),
)

LEADERS = Table(
    "leaders",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("term", Integer, nullable=False),
    Column("holder", String(200), nullable=False),
    Column("since_at", String(40), nullable=False),
)

ORDERS = Table(
    "orders",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("plan_id", String(80), ForeignKey("plans.plan_id"), nullable=False),
    Column("action", String(20), nullable=False),
    Column("asked_by", String(200), nullable=False),
    Column("asked_at", String(40), nullable=False),
    Column("error", String(80), nullable=True),
    Column("detail", Text, nullable=True),
    Column("revision", Integer, nullable=True),
    Index("ix_orders_deployment", "deployment", "seq"),
)

DIRECTIVES = Table(
    "directives",
    METADATA,
    Column("deployment", String(63), primary_key=True),
    Column("kind", String(20), primary_key=True),
    Column("subject", String(200), primary_key=True),
    Column("value", String(40), nullable=False),
    Column("reason", Text, nullable=False),
    Column("set_by", String(200), nullable=False),
    Column("set_at", String(40), nullable=False),
    Column("until_at", String(40), nullable=True),
)

BACKLOGS = Table(
    "backlogs",
    METADATA,
    Column("deployment", String(63), primary_key=True),
    Column("model", String(200), primary_key=True),
    Column("observed_at", String(40), nullable=False),
    Column("backlog", Text, nullable=False),
)

RECORDED_VALUES = Table(
    "recorded_values",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

DECISION_INPUTS = Table(
    "decision_inputs",
    METADATA,
    Column("decision", Integer, ForeignKey("decisions.seq", ondelete="CASCADE"), primary_key=True),
    Column("part", String(20), primary_key=True),
    Column("digest", String(64), ForeignKey("recorded_values.digest"), nullable=False),
    Index("ix_decision_inputs_digest", "digest"),
)

CALIBRATIONS = Table(
    "calibrations",
    METADATA,
    Column("deployment", String(63), primary_key=True),
    Column("profile_id", String(200), primary_key=True),
    Column("leg", String(20), primary_key=True),
    Column("changed_at", String(40), nullable=False),
    Column("calibration", Text, nullable=False),
)

COMPARISONS = Table(
    "comparisons",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("deployment", String(63), nullable=False),
    Column("model", String(200), nullable=False),
    Column("compared_at", String(40), nullable=False),
    Column("comparison", Text, nullable=False),
    Index("ix_comparisons_deployment", "deployment", "seq"),
)

PROCESSES = Table(
    "processes",
    METADATA,
    Column("identity", String(200), primary_key=True),
    Column("seen_at", String(40), nullable=False),
)

REPEATS = Table(
    "repeats",
    METADATA,
    Column("actor", String(200), primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("until_at", String(40), nullable=False),
    Column("status", Integer, nullable=True),
    Column("headers", Text, nullable=True),
    Column("body", Text, nullable=True),
    Index("ix_repeats_until_at", "until_at"),
)

JOBS = Table(
    "jobs",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(80), nullable=False),
    Column("deployment", String(63), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("request", Text, nullable=False),
    Column("asked_by", String(200), nullable=False),
    Column("asked_at", String(40), nullable=False),
    Column("state", String(20), nullable=False),
    Column("owner", String(200), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=True),
    Column("changed_at", String(40), nullable=False),
    Column("status", Integer, nullable=True),
    Column("location", String(400), nullable=True),
    Column("answer", Text, nullable=True),
    UniqueConstraint("job_id", name="uq_jobs_job_id"),
    Index("ix_jobs_state", "deployment", "state", "seq"),
)

SPECS = Table(
    "specs",
    METADATA,
    Column("deployment", String(63), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("spec_id", String(80), nullable=False),
    Column("given", String(80), nullable=False),
    Column("spec", Text, nullable=False),
    Column("allow_estimates", Boolean, nullable=False),
    Column("put_at", String(40), nullable=False),
    Column("put_by", String(200), nullable=False),
)

DEPLOYMENTS = Table(
    "deployments",
    METADATA,
    Column("deployment", String(63), primary_key=True),
    Column("lease", String(200), nullable=False),
    Column("given", String(80), nullable=False),
    Column("changed_at", String(40), nullable=False),
    Column("changed_by", String(200), nullable=False),
    Column("retired", Boolean, nullable=False),
    Index("ix_deployments_lease", "lease"),
)

PROFILES = Table(
    "profiles",
    METADATA,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("profile_id", String(80), nullable=False),
    Column("profile", Text, nullable=False),
    Column("added_at", String(40), nullable=False),
    Column("added_by", String(200), nullable=False),
    UniqueConstraint("profile_id", name="uq_profiles_profile_id"),
)
