"""What kubelet, Prometheus and people in trouble look at. It reads from the side and changes nothing."""
