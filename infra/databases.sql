-- Run once, when the volume is made: one database for each server, one for MLflow's users.
CREATE DATABASE prefect;
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
