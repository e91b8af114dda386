"""The expected tier against measurement: gains, totals, steps of a recurrence, spread, speed."""
