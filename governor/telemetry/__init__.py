"""What remains of a step: record lines, trace spans, and the journal that lets a killed run go on.

records   one JSON line an attempt and an outcome, without prompts and secrets
journal   results of paid calls, replayed into the same loop after `kill -9`
spans     OpenTelemetry, with the GenAI names written out
metrics   OpenTelemetry, of budgets
audit     record lines added up against the ledger (spend: what they say)
"""
