"""The demo: IQ scores read off the images of simulated answer sheets.

`answer_sheets` draws test-takers and their sheets, `limit` computes the lowest error that any reader
of a sheet can reach, `network` and `training` make the reader to be compressed, and `prepare` leaves
all of it in a folder.
"""
