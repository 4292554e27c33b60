/* NULL where it must not be: an error with EFAULT, and never a crash. */

#include "check.h"

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();

  if (argc != 2)
    return 2;
  SHOW (nbd_set_export_name (h, NULL));
  SHOW (nbd_set_handle_name (h, NULL));
  SHOW (nbd_add_meta_context (h, NULL));
  SHOW (nbd_set_tls_certificates (h, NULL));
  SHOW (nbd_set_tls_username (h, NULL));
  SHOW (nbd_set_tls_psk_file (h, NULL));
  SHOW (nbd_connect_uri (h, NULL));
  SHOW (nbd_connect_unix (h, NULL));
  SHOW (nbd_connect_tcp (h, NULL, "10809"));
  SHOW (nbd_connect_tcp (h, "localhost", NULL));
  SHOW (nbd_connect_command (h, NULL));
  SHOW (nbd_connect_systemd_socket_activation (h, NULL));
  SHOW (nbd_aio_connect (h, NULL, 0));
  SHOW (nbd_aio_connect_uri (h, NULL));
  SHOW (nbd_aio_connect_unix (h, NULL));
  SHOW (nbd_aio_connect_tcp (h, NULL, NULL));
  SHOW (nbd_aio_connect_command (h, NULL));
  SHOW (nbd_aio_connect_systemd_socket_activation (h, NULL));
  SHOW (nbd_set_debug_callback (h, (nbd_debug_callback) { .callback = NULL }));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_can_meta_context (h, NULL));
  SHOW (nbd_get_size (h));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}
