"""Bytes against accuracy: whit, and NNCodec on the same networks, as rows, a table and a plot.

Every figure of whit is that of a whole ``.whit`` file, run in ONNX Runtime; NNCodec's are its bitstream and the network
that it decodes to. Weights and samples come from ``WHIT_DATA``. Calibration, training and every choice use training
samples; the test samples give the last number only. NNCodec needs another NumPy, so it runs with an interpreter of its
own that has ``nncodec``, ``torch`` and ``safetensors``:

    python benchmarks/size.py --models resnet20,resnet56 --nncodec path/to/python --json rows.json --plot size.png
"""
