-- What a request cost is the sum of what its lines cost, as far as it is known.
SELECT request_id, 'cost ' || coalesce(cost_usd, 0) || ' USD, its lines ' || coalesce(lines_usd, 0) AS what
FROM usage
LEFT JOIN (
    SELECT log_partition, log_offset, sum(cost_usd) AS lines_usd
    FROM costs
    GROUP BY log_partition, log_offset
) USING (log_partition, log_offset)
WHERE coalesce(cost_usd, 0) <> coalesce(lines_usd, 0)
