"""Breaks things around running workers on a real Apache Kafka, then checks that no law of delivery was broken: `make chaos`."""
