"""The history of the ledger's tables, run by `dpdau.ledger.schema`."""
