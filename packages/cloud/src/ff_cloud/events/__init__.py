"""The durable copy of every workspace's journal, and the stream that clients follow with one cursor."""
