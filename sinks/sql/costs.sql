-- One row per cost line. Revision 0 is what the request ended with; higher revisions adjust it, in the period of their own
-- time. The sum over all revisions is the truth: of bill_usd for the tenant, of cost_usd for the operator.
CREATE VIEW costs AS
SELECT * FROM costs_tail
UNION ALL BY NAME
SELECT * FROM costs_stored;
