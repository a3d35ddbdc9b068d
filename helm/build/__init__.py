"""What of the chart is made from other files: the schema of its values, the table of its README, its rules and dashboards."""
