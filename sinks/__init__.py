"""The history: the log folded into Parquet, exactly once, and asked with SQL.

    log ──fold──▶ batch ──parquet──▶ live files ──compact──▶ dt=YYYY-MM-DD/ ──sql──▶ answers
                    └────────── manifest: files and log positions, one atomic step ┘

`rows` says what a record becomes; `fold` carries that along the partitions; `writer` and `manifest` make it durable;
`sink` does so while the gateway runs, `replay` from the log's start, and `reconcile` compares the two.
"""
