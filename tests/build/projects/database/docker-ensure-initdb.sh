#!/usr/bin/env bash
exec true
