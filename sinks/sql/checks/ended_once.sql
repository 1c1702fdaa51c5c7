-- A request has at most one valid end.
SELECT request_id, 'ended ' || count(*) || ' times' AS what
FROM usage
GROUP BY request_id
HAVING count(*) > 1
