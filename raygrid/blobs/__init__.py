"""The blob store: stores inputs, shared data and results as bytes, through obstore.

The default is a directory; a URL names S3, Google Cloud or Azure. The kinds of keys:

    inputs/<day>/<sha256>     a job's input; the day keeps a purge from deleting the input of a new submit
    data/<sha256>             shared inputs, stored once
    results/<day>/<id>        result ZIPs: one large one, or a pack of many small ones, concatenated
    uploads/<id>              unfinished uploads
    grid/marker               identifies the blob store; all machines of a grid must use the same one
"""

from raygrid.blobs.keys import data_key, day_of, input_key, new_result_key
from raygrid.blobs.store import BlobStore
from raygrid.blobs.upload import Upload

__all__ = ["BlobStore", "Upload", "data_key", "day_of", "input_key", "new_result_key"]
