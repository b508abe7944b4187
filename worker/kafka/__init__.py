"""The Kafka edge: the only place, with the app, that knows FastStream and aiokafka."""
