"""What people are told, once, and that it is over.

runs -> ``findings`` (what is wrong) -> ``memory`` (what is new, what is over) -> ``messages``
(the wording) -> ``outbox`` (until Slack has it).
Other sensors say what they see by ``sensors.report``.
"""
