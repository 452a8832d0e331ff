"""Every error that Poolwise raises on purpose.

::

    PoolwiseError
    ├── InputError                 what was given is wrong (exit status 2, HTTP 422)
    │   ├── SpecError              the YAML spec: unknown field, impossible value, missing file
    │   │   └── TooLongError       more of a class than may miss fits into no context
    │   ├── TraceError             a trace file: missing, malformed, out of order
    │   │   └── EmptyTraceError    it holds no request, or not one whole window
    │   ├── ProfileError           a profile file: missing, malformed, not for this model
    │   │   └── OutsideProfileError   asked for lengths that were never measured
    │   ├── CatalogueError         a catalogue of accelerators: missing, malformed, given twice
    │   ├── HistoryError           observed windows or a fleet handed in as JSON
    │   │   └── EmptyHistoryError  there is no window at all
    │   ├── KeyFileError           a file of API keys: not readable, name taken or unknown
    │   ├── TokenError             a bearer token: name taken or not usable, only admin left
    │   │   └── UnknownTokenError  no live token of that name
    │   ├── NotAllowedError        what was asked needs a higher role (HTTP 403)
    │   ├── UnknownDeploymentError no deployment of that name is served here
    │   ├── UnknownPlanError       no plan under that id
    │   ├── UnknownDecisionError   no decision under that id
    │   ├── UnknownJobError        no job under that id
    │   └── UnknownProfileError    no profile under that id
    └── OperationError             the world did not do as asked (exit status 1, HTTP 409/503)
        ├── EngineError            an engine did not start or died; carries its last log lines
        ├── RouterError            the router refused, or paired workers without KV transfer
        ├── NoFreePortError        no loopback port could be had
        ├── NotEnoughMemoryError   the engines would not fit into the machine's memory
        ├── NoFreeDeviceError      all accelerators that a worker could take are taken
        ├── StateDirectoryError    another manager owns the state directory
        ├── StoreError             the database cannot be opened, read or written
        ├── ServerError            a Poolwise server cannot be reached, or does not do as asked
        ├── StageOverrunError      a stage of a tick took longer than its deadline
        ├── AuditBrokenError       the audit log is not as it was written
        ├── MeasurementError       a measurement gave too little to fit a profile
        ├── StalePlanError         the fleet is no longer the one the diff was made from
        ├── PlanStateError         an approval step that the plan's state does not allow
        ├── PlanChangedError       the plan is no longer in the state that somebody decided on
        ├── SpecChangedError       the spec is no longer the one that somebody replaced
        ├── BusyError              as much work waits as may wait: ask again later
        ├── NotWantedError         work was broken off, since nobody wants it any more
        ├── NotLeaderError         another process leads: this one must not move the fleet
        ├── ApplyError             a rollout step failed; says which and what is left
        │   └── DeadlineMissedError   a step showed no effect before its progress deadline
        ├── GuardRefusedError      a guard forbids the change
        └── SolverError            the solver found nothing in time, or its answer fails the check

Messages name the condition, say what was looked for and where, and what to do about it.
"""


class PoolwiseError(Exception):
    """Root of every error raised on purpose; its text is written for the user."""


class InputError(PoolwiseError):
    """Something the user gave is wrong."""


class SpecError(InputError):
    """The spec is not usable."""


class TooLongError(SpecError):
    """More requests of a class than may miss fit into no context that the spec has.

    Parameters
    ----------
    message : str
        With the ways out.
    request_class : str
        Whose requests they are.
    too_long_ratio : float
        Share of them that fits nowhere, 0..1.
    context_tokens : int
        The largest context there is, tokens.
    """

    def __init__(
        self, message: str, *, request_class: str, too_long_ratio: float, context_tokens: int
    ) -> None:
        super().__init__(message)
        self.request_class = request_class
        self.too_long_ratio = too_long_ratio
        self.context_tokens = context_tokens


class TraceError(InputError):
    """A trace file is not usable."""


class TooLittleError(InputError):
    """Too little was seen to say anything of the traffic; what was given is well-formed.

    Parameters
    ----------
    where : str
        A file, a description or the store.
    what : str
        What it holds, or lacks.
    remedy : str
        What to do about it.
    requests : int
        That were seen.
    """

    def __init__(self, *, where: str, what: str, remedy: str, requests: int = 0) -> None:
        super().__init__(f"{where}: {what}; {remedy}")
        self.where = where
        self.what = what
        self.remedy = remedy
        self.requests = requests


class EmptyTraceError(TooLittleError, TraceError):
    """A trace holds no request, or not one whole window of them."""


class ProfileError(InputError):
    """A profile is missing or not usable."""


class OutsideProfileError(ProfileError):
    """A value lies outside what the profile measured."""


class CatalogueError(InputError):
    """A catalogue of accelerators is not usable."""


class HistoryError(InputError):
    """Observed windows or a fleet handed in from outside are not usable."""


class EmptyHistoryError(TooLittleError, HistoryError):
    """There is no observed window at all: no data is not zero traffic."""


class KeyFileError(InputError):
    """A file of API keys is not usable, or has no key or already one of that name."""


class TokenError(InputError):
    """A bearer token cannot be made, or ended, as asked."""


class UnknownTokenError(TokenError):
    """No live token has this name."""


class NotAllowedError(InputError):
    """What was asked needs a higher role than whoever asked has."""


class UnknownDeploymentError(InputError):
    """No deployment of this name is served here."""


class UnknownPlanError(InputError):
    """No plan is stored under this id."""


class UnknownDecisionError(InputError):
    """No decision is stored under this id."""


class UnknownJobError(InputError):
    """No job is stored under this id."""


class UnknownProfileError(InputError):
    """No profile is stored under this id."""


class OperationError(PoolwiseError):
    """The world did not do as asked."""


class EngineError(OperationError):
    """An engine did not start, or died.

    Parameters
    ----------
    message : str
        What happened and what to do.
    log_tail : tuple of str
        The last lines that the engine wrote, oldest first.
    """

    def __init__(self, message: str, *, log_tail: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log_tail = log_tail

    def __str__(self) -> str:
        message = str(self.args[0])
        if not self.log_tail:
            return message
        return message + "\nits last log lines:\n" + "\n".join(f"  | {x}" for x in self.log_tail)


class WithdrawnError(EngineError):
    """A worker was taken away on purpose while somebody waited for it."""


class RouterError(OperationError):
    """The router refused a worker, or paired workers without KV transfer."""


class NoFreePortError(OperationError):
    """No loopback port could be had."""


class NotEnoughMemoryError(OperationError):
    """The engines would not fit into the machine's memory."""


class NoFreeDeviceError(OperationError):
    """All accelerators that a worker could take are taken."""


class StateDirectoryError(OperationError):
    """Another running manager owns the state directory."""


class StoreError(OperationError):
    """The database cannot be opened, read or written."""


class ServerError(OperationError):
    """A Poolwise server cannot be reached, or refuses for now; its own words, where it has any."""


class StageOverrunError(OperationError):
    """A stage of a tick took longer than its deadline."""


class EndingError(OperationError):
    """The process is to end: what changes nothing is not waited for."""


class AuditBrokenError(OperationError):
    """The audit log was tampered with."""


class MeasurementError(OperationError):
    """A measurement gave too little to go on."""


class StalePlanError(OperationError):
    """The fleet changed after the diff was made: plan again."""


class PlanStateError(OperationError):
    """The plan's state does not allow this approval step."""


class OvertakenError(PlanStateError):
    """The spec, or what people ordered, changed while the plan was made or waited.

    Parameters
    ----------
    for_good : bool
        Whether nothing can come of the plan any more.
    """

    def __init__(self, message: str, *, for_good: bool) -> None:
        super().__init__(message)
        self.for_good = for_good


class PlanChangedError(OperationError):
    """The plan is no longer in the state that the request was made for."""


class SpecChangedError(OperationError):
    """The spec is no longer the one that the request was made for."""


class BusyError(OperationError):
    """As much work waits as may wait."""


class NotWantedError(OperationError):
    """Work was broken off, since whoever asked for it does not want it any more."""


class NotLeaderError(OperationError):
    """Another process leads, or nobody does yet; only the leader moves the fleet."""


class ApplyError(OperationError):
    """A rollout step failed."""


class DeadlineMissedError(ApplyError):
    """A step showed no effect before its progress deadline."""


class GuardRefusedError(OperationError):
    """A guard forbids the change."""


class SolverError(OperationError):
    """The solver found nothing within its limits, or its answer fails the check."""
