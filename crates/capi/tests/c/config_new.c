/* The settings that are younger than libnbd 1.14, and the counters. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char byte;

  if (argc != 2)
    return 2;
  SHOW (nbd_get_request_meta_context (h));
  SHOW (nbd_set_request_meta_context (h, false));
  SHOW (nbd_get_request_meta_context (h));
  SHOW (nbd_get_request_extended_headers (h));
  SHOW (nbd_set_request_extended_headers (h, false));
  SHOW (nbd_get_request_extended_headers (h));
  SHOW_STRING (nbd_get_socket_activation_name (h));
  SHOW (nbd_set_socket_activation_name (h, "a:b"));
  SHOW (nbd_set_socket_activation_name (h, "abcdefghijklmnopqrstuvwxyz0123456789"));
  SHOW (nbd_set_socket_activation_name (h, "disk1"));
  SHOW_STRING (nbd_get_socket_activation_name (h));
  SHOW_STRING (nbd_get_tls_hostname (h));
  SHOW (nbd_set_tls_hostname (h, "example.com"));
  SHOW_STRING (nbd_get_tls_hostname (h));
  SHOW (nbd_set_uri_allow_tls_priority (h, true));
  SHOW (nbd_get_subprocess_pid (h));
  SHOW (nbd_get_handle_size (h) > 0);
  SHOW (nbd_supports_uri (h));
  SHOW (nbd_supports_vsock (h));
  SHOW (nbd_stats_bytes_sent (h));
  SHOW (nbd_stats_chunks_sent (h));
  SHOW (nbd_stats_bytes_received (h));
  SHOW (nbd_stats_chunks_received (h));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_get_structured_replies_negotiated (h));
  SHOW (nbd_get_extended_headers_negotiated (h));
  SHOW (nbd_can_block_status_payload (h));
  SHOW (nbd_get_block_size (h, LIBNBD_SIZE_PAYLOAD));
  MUST (nbd_pread (h, &byte, 1, 0, 0));
  SHOW (nbd_stats_bytes_sent (h));
  SHOW (nbd_stats_chunks_sent (h));
  SHOW (nbd_stats_bytes_received (h));
  SHOW (nbd_stats_chunks_received (h));
  nbd_close (h);
  return 0;
}
