-- The lines that have no copy in the topic `costs` yet.
SELECT count(*)
FROM costs
JOIN partitions USING (log_partition)
ANTI JOIN copies USING (request_id, attempt, revision, line)
WHERE ts >= copied_from AND NOT (log_offset < copied_offset AND ts < copied_until)
