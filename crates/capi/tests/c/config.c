/* Every setting: its default, what it is after it was set, and its bounds. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();

  (void) argv;
  if (argc != 1)
    return 2;
  SHOW_STRING (nbd_get_handle_name (h));
  SHOW (nbd_set_handle_name (h, "tester"));
  SHOW_STRING (nbd_get_handle_name (h));
  SHOW (nbd_get_private_data (h));
  SHOW (nbd_set_private_data (h, 42));
  SHOW (nbd_set_private_data (h, (uintptr_t) h) == 42);
  SHOW (nbd_get_private_data (h) == (uintptr_t) h);
  SHOW_STRING (nbd_get_export_name (h));
  SHOW (nbd_set_export_name (h, "disk \xc3\xa4"));
  SHOW_STRING (nbd_get_export_name (h));
  SHOW (nbd_get_request_block_size (h));
  SHOW (nbd_set_request_block_size (h, false));
  SHOW (nbd_get_request_block_size (h));
  SHOW (nbd_get_full_info (h));
  SHOW (nbd_set_full_info (h, true));
  SHOW (nbd_get_full_info (h));
  SHOW (nbd_get_tls (h));
  SHOW (nbd_set_tls (h, LIBNBD_TLS_ALLOW));
  SHOW (nbd_get_tls (h));
  SHOW (nbd_get_tls_verify_peer (h));
  SHOW (nbd_set_tls_verify_peer (h, false));
  SHOW (nbd_get_tls_verify_peer (h));
  setenv ("LOGNAME", "tester", 1);
  SHOW_STRING (nbd_get_tls_username (h));
  SHOW (nbd_set_tls_username (h, "alice"));
  SHOW_STRING (nbd_get_tls_username (h));
  SHOW (nbd_get_request_structured_replies (h));
  SHOW (nbd_set_request_structured_replies (h, false));
  SHOW (nbd_get_request_structured_replies (h));
  SHOW (nbd_get_handshake_flags (h));
  SHOW (nbd_set_handshake_flags (h, 0));
  SHOW (nbd_get_handshake_flags (h));
  SHOW (nbd_get_pread_initialize (h));
  SHOW (nbd_set_pread_initialize (h, false));
  SHOW (nbd_get_pread_initialize (h));
  SHOW (nbd_get_opt_mode (h));
  SHOW (nbd_set_opt_mode (h, true));
  SHOW (nbd_get_opt_mode (h));
  SHOW (nbd_get_nr_meta_contexts (h));
  SHOW (nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  SHOW (nbd_add_meta_context (h, "qemu:dirty-bitmap:b"));
  SHOW (nbd_get_nr_meta_contexts (h));
  SHOW_STRING (nbd_get_meta_context (h, 0));
  SHOW_STRING (nbd_get_meta_context (h, 1));
  SHOW_STRING (nbd_get_meta_context (h, 2));
  SHOW (nbd_clear_meta_contexts (h));
  SHOW (nbd_get_nr_meta_contexts (h));
  SHOW (nbd_set_uri_allow_transports (h, LIBNBD_ALLOW_TRANSPORT_TCP));
  SHOW (nbd_set_uri_allow_tls (h, LIBNBD_TLS_REQUIRE));
  SHOW (nbd_set_uri_allow_local_file (h, true));
  printf ("%s\n", nbd_connection_state (h));
  printf ("%s\n", nbd_get_package_name (h));
  SHOW (nbd_aio_is_created (h));
  SHOW (nbd_aio_get_direction (h));
  nbd_close (h);
  return 0;
}
