"""The failures that have a meaning of their own; everything else that is raised is a bug of ours."""


class WorkerError(Exception):
    """Something the operator can act on: the text says what is wrong and what to change."""


class ConfigurationError(WorkerError):
    """Settings or the escalation policy can't be used."""


class ModelBundleError(WorkerError):
    """The bundle of weights is missing, incomplete or altered."""


class TopicsMissingError(WorkerError):
    """A topic that the worker reads or writes does not exist."""


class BrokerUnavailableError(WorkerError):
    """The broker was out of reach for longer than the deadline."""


class AccessRefusedError(WorkerError):
    """The broker answers, and does not let the worker in or do its work; trying again would not help."""


class RejectionFloodError(WorkerError):
    """So many records are rejected that the fault is likely elsewhere; nothing more is diverted."""


class PublishRefusedError(WorkerError):
    """The broker refuses an event for good, whatever the number of retries."""


class DeadLetterError(WorkerError):
    """Dead letters can't be shown or sent back as they were asked for."""
