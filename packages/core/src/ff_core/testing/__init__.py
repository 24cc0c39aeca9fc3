"""Shipped fakes and scripted peers, held to the suite of the real thing or driven by the real client."""
