package guess

// WordList is the embedded file.
var WordList = wordList
