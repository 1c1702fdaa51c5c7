-- One row per provider call, failed ones included: what it was, how it ended, what it cost when the request ended.
CREATE VIEW attempts AS
SELECT * FROM attempts_tail
UNION ALL BY NAME
SELECT * FROM attempts_stored;
