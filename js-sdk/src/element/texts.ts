// What the microphone says to customers, in Twi and English. A shop overrides any of them, or adds a language, by the
// element's attribute `texts` (JSON) or its property.

export interface Texts {
  /** The button, by what it would do now. */
  speak: string;
  stop: string;
  /** What is going on. */
  loading: string;
  listening: string;
  hearing: string;
  thinking: string;
  /** Why there was no command. */
  no_speech: string;
  out_of_scope: string;
  ambiguous: string;
  low_confidence: string;
  /** Errors, by code; `failed` for all others. */
  microphone_denied: string;
  microphone_missing: string;
  offline: string;
  failed: string;
  /** Done, with the command's name; and taking it back. */
  done: string;
  undo: string;
  undone: string;
  /** The question before money moves or something is lost. */
  ask: string;
  yes: string;
  no: string;
  dropped: string;
  /** May what is said be sent? */
  consent: string;
  allow: string;
  refuse: string;
  /** The typed alternative. */
  type: string;
  placeholder: string;
  send: string;
}

export const TEXTS: Record<string, Texts> = {
  tw: {
    speak: "Mia na kasa",
    stop: "Gyae",
    loading: "Ɛresiesie… {percent} %",
    listening: "Meretie…",
    hearing: "Mete wo…",
    thinking: "Meredwen ho…",
    no_speech: "Mante hwee. Kasa bio.",
    out_of_scope: "Mante aseɛ. Mepa wo kyɛw, san ka bio.",
    ambiguous: "Menhu nea wopɛ pɛpɛɛpɛ. San ka bio.",
    low_confidence: "Mante yie. Mepa wo kyɛw, san ka bio.",
    microphone_denied: "Wo browser mma me mfa microphone no. Ma ho kwan wɔ settings mu.",
    microphone_missing: "Mehu microphone biara.",
    offline: "Network nni hɔ.",
    failed: "Biribi ansi yie. San bɔ mmɔden.",
    done: "Mayɛ: {command}",
    undo: "San yɛ no sɛdeɛ ɛteɛ",
    undone: "Masan ayɛ no sɛdeɛ na ɛteɛ.",
    ask: "{command}: wopɛ sɛ meyɛ? Ka bio anaa mia Aane.",
    yes: "Aane",
    no: "Daabi",
    dropped: "Yoo, magyae.",
    consent: "Sɛ mɛte wo aseɛ a, ɛsɛ sɛ mede wo nne kɔ server so. Wopene so?",
    allow: "Mepene so",
    refuse: "Daabi",
    type: "Twerɛ mmom",
    placeholder: "Fa yei to cart no mu",
    send: "Soma",
  },
  en: {
    speak: "Press and speak",
    stop: "Stop",
    loading: "Getting ready… {percent} %",
    listening: "Listening…",
    hearing: "I hear you…",
    thinking: "One moment…",
    no_speech: "I heard nothing. Please speak again.",
    out_of_scope: "I did not understand. Please say it again.",
    ambiguous: "I am not sure what you mean. Please say it another way.",
    low_confidence: "I did not hear that well. Please say it again.",
    microphone_denied: "This page may not use the microphone. Allow it in your browser's settings.",
    microphone_missing: "There is no microphone.",
    offline: "There is no network.",
    failed: "That did not work. Please try again.",
    done: "Done: {command}",
    undo: "Undo",
    undone: "Taken back.",
    ask: "{command}: shall I? Say it again, or press Yes.",
    yes: "Yes",
    no: "No",
    dropped: "All right, I left it.",
    consent: "To understand you, your voice has to be sent to the shop's server. Do you agree?",
    allow: "I agree",
    refuse: "No",
    type: "Type instead",
    placeholder: "Put this in my cart",
    send: "Send",
  },
};

/** Commands as customers know them; one that is not here is shown by its name. */
export const COMMANDS: Record<string, Record<string, string>> = {
  tw: {
    add_address: "fa address ka ho", add_to_cart: "fa to cart mu", apply_coupon: "fa coupon di dwuma", apply_filter: "yi mu",
    cancel_order: "twa order no mu", change_color: "sesa kɔla", change_quantity: "sesa dodow", change_size: "sesa size",
    checkout: "kɔ checkout", clear_cart: "pepa cart no", clear_filter: "yi filter no", confirm_order: "pintim order no",
    continue: "kɔ so", disable_order_updates: "gyae order nkra", disable_price_alert: "gyae boɔ nkra",
    enable_order_updates: "sɔ order nkra", enable_price_alert: "sɔ boɔ nkra", exchange_item: "sesa adeɛ no",
    go_back: "san kɔ akyi", go_home: "kɔ fie", help: "boa me", make_payment: "tua ka", open_account: "bue account",
    open_orders: "bue orders", open_wishlist: "bue wishlist", order_not_arrived: "order no mmaeɛ",
    refund_status: "refund no te sɛn", remove_address: "yi address", remove_coupon: "yi coupon",
    remove_from_cart: "yi firi cart mu", return_item: "san de kɔ", save_for_later: "kora ma akyire", search: "hwehwɛ",
    select_color: "yi kɔla", select_size: "yi size", set_default_address: "address titire", set_quantity: "dodow",
    show_addresses: "kyerɛ addresses", show_cart: "kyerɛ cart", show_description: "ho nsɛm", show_faqs: "nsɛmmisa",
    show_order_status: "order no te sɛn", show_orders: "kyerɛ orders", show_price: "ne boɔ", show_reviews: "reviews",
    show_similar_items: "nea ɛte sɛ yei", sort_items: "hyehyɛ", start_live_chat: "kasa kyerɛ onipa", track_order: "order no wɔ he",
  },
  en: {},
};

/** `{name}` in a text is put in. */
export function fill(text: string, values: Record<string, string | number>): string {
  const filled = text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
  return filled.charAt(0).toUpperCase() + filled.slice(1);
}

export const nameOf = (intent: string, language: string) => COMMANDS[language]?.[intent] ?? intent.replaceAll("_", " ");
