-- One row per refused access and per act of administration. hash chains each row to all before it in its partition.
CREATE VIEW audit AS
SELECT * FROM audit_tail
UNION ALL BY NAME
SELECT * FROM audit_stored;
