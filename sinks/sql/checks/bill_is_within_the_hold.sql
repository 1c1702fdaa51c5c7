-- One cannot capture more than was held.
SELECT request_id, 'is billed ' || bill_usd || ' USD, of which only ' || hold_usd || ' were held' AS what
FROM usage
WHERE bill_usd > hold_usd
