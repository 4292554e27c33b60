/* Option mode, step by step: what libnbd 1.16 and younger can ask for. */

#include "check.h"

static int
on_context (void *user_data, const char *name)
{
  printf ("  %s %s\n", (char *) user_data, name);
  return 0;
}

static int
on_completion (void *user_data, int *error)
{
  printf ("  %s completed, error %d\n", (char *) user_data, *error);
  return 1;
}

static void
on_free (void *user_data)
{
  printf ("  %s freed\n", (char *) user_data);
}

#define CONTEXTS ((nbd_context_callback) { on_context, "context", on_free })
#define COMPLETION ((nbd_completion_callback) { on_completion, "option", on_free })

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char *queries[] = { LIBNBD_CONTEXT_BASE_ALLOCATION, "no:such", NULL };

  if (argc != 2)
    return 2;
  MUST (nbd_set_opt_mode (h, true));
  MUST (nbd_set_request_structured_replies (h, false));
  MUST (nbd_set_request_extended_headers (h, false));
  MUST (nbd_set_request_meta_context (h, false));
  MUST (nbd_connect_unix (h, argv[1]));
  SHOW (nbd_get_structured_replies_negotiated (h));
  SHOW (nbd_opt_list_meta_context_queries (h, queries, CONTEXTS));
  SHOW (nbd_opt_set_meta_context_queries (h, queries, CONTEXTS));
  SHOW (nbd_opt_structured_reply (h));
  SHOW (nbd_opt_structured_reply (h));
  SHOW (nbd_get_structured_replies_negotiated (h));
  SHOW (nbd_opt_starttls (h));
  SHOW (nbd_opt_list_meta_context_queries (h, queries, CONTEXTS));
  if (nbd_aio_is_negotiating (h))
    SHOW (nbd_opt_list_meta_context_queries (h, NULL, CONTEXTS));
  SHOW (nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  SHOW (nbd_opt_set_meta_context_queries (h, queries, CONTEXTS));
  SHOW (nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  SHOW (nbd_can_meta_context (h, "no:such"));
  SHOW (nbd_add_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  SHOW (nbd_opt_set_meta_context (h, CONTEXTS));
  if (nbd_aio_is_negotiating (h))
    MUST (nbd_aio_opt_set_meta_context (h, CONTEXTS, COMPLETION));
  while (nbd_aio_is_connecting (h))
    MUST (nbd_poll2 (h, -1, -1));
  SHOW (nbd_opt_go (h));
  SHOW (nbd_can_meta_context (h, LIBNBD_CONTEXT_BASE_ALLOCATION));
  SHOW (nbd_opt_extended_headers (h));
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  return 0;
}
