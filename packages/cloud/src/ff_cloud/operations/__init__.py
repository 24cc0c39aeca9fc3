"""Durable acts of many steps: each survives the death of any process and ends done, undone or, loudly, stuck.

A room that has one writes :class:`~ff_cloud.operations.model.Step`s and a :class:`~ff_cloud.operations.model.Kind`,
starts it with :func:`~ff_cloud.operations.service.start` in the transaction that needs it, and the worker's
:class:`~ff_cloud.operations.engine.Operations` carries it out.
"""
