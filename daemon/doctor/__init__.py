"""
What is wrong, and what to do about it: everything here only looks.

    findings    what a check says, how it is run, and the secrets that must not stand in it
    patient     what is looked at: the environment, the settings as far as they can be read
    machine     Python, SQLite, time zones, this machine's clock
    configured  settings, limits, prices, and who can read the secrets
    storage     state folder, room, outbox, backups, the process lock
    books       the database, opened so that not even SQLite changes anything
    asking      GET, and nothing else, with the times that answers name
    sources     feeds and the search engine
    providers   models and keys
    platforms   destinations, Stripe, the webhook
    examination all of it

Nothing is made, migrated, locked, posted, bought or logged in to.
"""

from daemon.doctor.examination import examine
from daemon.doctor.findings import Finding, State
from daemon.doctor.patient import Patient, admit

__all__ = ["Finding", "Patient", "State", "admit", "examine"]
