"""The blob store: where inputs, shared data and results lie as bytes, through obstore.

A directory by default; S3, Google Cloud or Azure by URL. A key shows what its blob is:

    inputs/<day>/<sha256>     a job's input; the day keeps a purge from racing with a new submit of the same bytes
    data/<sha256>             shared inputs, stored once
    results/<day>/<id>        result ZIPs: one large one, or a pack of many small ones laid end to end
    uploads/<id>              bodies on their way in
    grid/marker               which blob store this is: the whole grid works with one, or not at all
"""

from raygrid.blobs.keys import data_key, day_of, input_key, new_result_key
from raygrid.blobs.store import BlobStore
from raygrid.blobs.upload import Upload

__all__ = ["BlobStore", "Upload", "data_key", "day_of", "input_key", "new_result_key"]
