-- What a request is billed is the sum of what its lines are billed.
SELECT request_id, 'is billed ' || bill_usd || ' USD, its lines ' || coalesce(lines_usd, 0) AS what
FROM usage
LEFT JOIN (
    SELECT log_partition, log_offset, sum(bill_usd) AS lines_usd
    FROM costs
    GROUP BY log_partition, log_offset
) USING (log_partition, log_offset)
WHERE bill_usd <> coalesce(lines_usd, 0)
