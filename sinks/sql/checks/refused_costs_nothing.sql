-- A refused request made no call, so it costs nothing.
SELECT request_id, 'was rejected, but cost ' || coalesce(cost_usd, 0) || ' and is billed ' || bill_usd || ' USD' AS what
FROM usage
WHERE status = 'rejected' AND (coalesce(cost_usd, 0) <> 0 OR bill_usd <> 0)
