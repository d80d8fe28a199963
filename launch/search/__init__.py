"""`dlfd search`: the settings of one method, by Ray Tune; judged on val, never on test."""
