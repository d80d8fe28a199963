"""What a certificate proves and what it does not, in the words that it must carry."""

from __future__ import annotations

PROVES = [
    "The files of the run directory are those that were certified, byte for byte: the forget "
    "request with what became of every line, the configuration, the weights that went in and came "
    "out, and the measurements.",
    "What the certificate says of request, split, configuration and measurements is what these "
    "files say.",
    "With a signature compared with a key you trust: the holder of that key vouched for all of it.",
    "With --recompute: the delivered weights, measured again on the data, give the certified "
    "figures.",
]
DOES_NOT_PROVE = [
    "That the model holds no trace of the forgotten people. It certifies a procedure and its "
    "measurements, not a privacy guarantee; another attack may find what these did not.",
    "That the delivered weights came from this procedure: only running it again shows that.",
    "That the forgotten people are absent from copies of the data, earlier checkpoints, other "
    "models, or equal images under other names.",
    "That code and environment are those that ran. With as_of=run the run wrote them down itself "
    "when it started, else they are those of certification; nor that its clock was right. Without "
    "a signature nothing speaks for these, and with one only the word of the signer.",
    "Who the people are, unless you hold the salt file. But whoever has the data and the weights "
    "can try who fits the measured figures: a certificate is no anonymous document to them.",
]
STATEMENT = {"proves": PROVES, "does_not_prove": DOES_NOT_PROVE}
