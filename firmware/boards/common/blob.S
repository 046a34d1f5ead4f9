/* The blob of frozen weights, as cmake/make_blob.py wrote it. */
    .section .blob, "a"
    .balign 16
    .incbin BLOB_FILE
