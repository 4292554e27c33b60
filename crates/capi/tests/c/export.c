/* What a server says about its export. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();

  if (argc != 2)
    return 2;
  MUST (nbd_set_full_info (h, true));
  MUST (nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  MUST (nbd_add_meta_context (h, "no:such"));
  MUST (nbd_connect_unix (h, argv[1]));
  printf ("%s\n", nbd_get_protocol (h));
  printf ("%s\n", nbd_connection_state (h));
  SHOW (nbd_get_tls_negotiated (h));
  SHOW (nbd_get_structured_replies_negotiated (h));
  SHOW_STRING (nbd_get_canonical_export_name (h));
  SHOW_STRING (nbd_get_export_description (h));
  SHOW (nbd_get_size (h));
  SHOW (nbd_get_block_size (h, LIBNBD_SIZE_MINIMUM));
  SHOW (nbd_get_block_size (h, LIBNBD_SIZE_PREFERRED));
  SHOW (nbd_get_block_size (h, LIBNBD_SIZE_MAXIMUM));
  SHOW (nbd_is_read_only (h));
  SHOW (nbd_is_rotational (h));
  SHOW (nbd_can_flush (h));
  SHOW (nbd_can_fua (h));
  SHOW (nbd_can_trim (h));
  SHOW (nbd_can_zero (h));
  SHOW (nbd_can_fast_zero (h));
  SHOW (nbd_can_df (h));
  SHOW (nbd_can_multi_conn (h));
  SHOW (nbd_can_cache (h));
  SHOW (nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  SHOW (nbd_can_meta_context (h, "no:such"));
  SHOW (nbd_aio_is_created (h));
  SHOW (nbd_aio_is_connecting (h));
  SHOW (nbd_aio_is_negotiating (h));
  SHOW (nbd_aio_is_ready (h));
  SHOW (nbd_aio_is_processing (h));
  SHOW (nbd_aio_is_dead (h));
  SHOW (nbd_aio_is_closed (h));
  SHOW (nbd_aio_get_direction (h));
  SHOW (nbd_aio_get_fd (h) >= 0);
  MUST (nbd_shutdown (h, 0));
  printf ("%s\n", nbd_connection_state (h));
  SHOW (nbd_get_size (h));
  SHOW (nbd_aio_is_closed (h));
  nbd_close (h);
  return 0;
}
