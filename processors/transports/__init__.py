"""Faust over the project's logs: `faust_app` sets it up; agents and owners need nothing else from here.

faust_app     the app, its settings, its readiness
ownership     partitions are taken over before they are consumed, and given up before they go
checkpoint    rows that outlive the process, in a Faust table's changelog
safe_commit   no commit passes an event that is still being worked on
embedded      the transport over the embedded log
kafka         the transport over Kafka
"""
