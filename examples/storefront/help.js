// What a customer can say, with what it means, and the frequent questions. The sentences are of core/data/phrases.tsv's kind.

export const HELP = [
  { title: { tw: "Hwehwɛ", en: "Look around" }, say: [
    ["Hwehwɛ ɛmo", "Search for rice"], ["Kyerɛ me mpaboa foforɔ", "Show me new shoes"],
    ["Kyerɛ me deɛ ne boɔ yɛ fo nko ara", "Show only cheap ones"], ["Yi filter no firi so", "Remove the filter"],
    ["San kɔ akyi", "Go back"], ["Kɔ fie", "Go home"],
  ] },
  { title: { tw: "Adeɛ bi", en: "A product" }, say: [
    ["Ɛyɛ sɛn?", "How much is it?"], ["Kyerɛ me reviews no", "Show the reviews"], ["Ma me tuntum no", "Give me the black one"],
    ["Mepɛ kɛseɛ no", "I want the large one"], ["Kyerɛ me deɛ ɛte sɛ yei", "Show me things like this"],
  ] },
  { title: { tw: "Cart", en: "The cart" }, say: [
    ["Fa yei to cart no mu", "Put this in the cart"], ["Fa ɛmo mmiɛnsa to cart no mu", "Put three rice in the cart"],
    ["Fa baako ka ho", "One more"], ["Yi yei firi cart no mu", "Take this out of the cart"], ["Me coupon no nie, fa yɛ adwuma", "Use my coupon"],
    ["Fa me kɔ checkout", "Take me to the checkout"], ["Mede momo bɛtua", "I pay by mobile money"], ["Pintim order no", "Confirm the order"],
  ] },
  { title: { tw: "Order", en: "Orders" }, say: [
    ["Me order no wɔ he?", "Where is my order?"], ["Me order no mmaeɛ", "My order has not come"], ["Twa order no mu", "Cancel the order"],
    ["Mepɛ sɛ mereturn adeɛ no", "I want to return it"], ["Me refund no te dɛn?", "How is my refund?"],
  ] },
];

export const FAQS = [
  { question: { tw: "Delivery yɛ sɛn?", en: "What does delivery cost?" },
    answer: { tw: "GH₵ 25. Wotɔ adeɛ GH₵ 500 a, ɛyɛ kwa.", en: "GH₵ 25, and nothing from GH₵ 500." } },
  { question: { tw: "Me nne kɔ he?", en: "Where does my voice go?" },
    answer: {
      tw: "Ɛyɛ wo na wokyerɛ: “Deɛ mete” mu, paw “Fon yi so nko ara” na biribiara mfiri fon no so.",
      en: "You decide: under “What was heard”, choose “Only on this device”, and nothing leaves it.",
    } },
  { question: { tw: "Mɛtumi de momo atua?", en: "Can I pay by mobile money?" },
    answer: { tw: "Aane. Card nso yɛ. Yei yɛ demo, enti sika biara nkɔ.", en: "Yes, and by card. This is a demo, so no money moves." } },
  { question: { tw: "Mɛtumi asan de adeɛ aba?", en: "Can I send things back?" },
    answer: { tw: "Aane. Bue order no na mia Return.", en: "Yes. Open the order and choose Return." } },
  { question: { tw: "Ɛyɛ adwuma a intanɛt nni hɔ?", en: "Does it work without internet?" },
    answer: { tw: "Aane, sɛ woabue no pɛn.", en: "Yes, once you have opened it before." } },
];
