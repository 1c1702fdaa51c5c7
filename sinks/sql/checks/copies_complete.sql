-- Every line of the journal has a copy in the topic `costs`, except those of the last moments: they are pending.
SELECT
    request_id,
    'attempt ' || attempt || ', revision ' || revision || ', line ' || line || ': no copy in costs' AS what
FROM costs
JOIN partitions USING (log_partition)
ANTI JOIN copies USING (request_id, attempt, revision, line)
WHERE log_offset < copied_offset AND ts < copied_until AND ts >= copied_from
